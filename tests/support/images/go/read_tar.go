// Reads tar archives from standard input, each after its length in eight hex digits, and writes a line of JSON for each: what
// Go's archive/tar finds in it. Names, targets and attributes are in hex, because they need not be UTF-8.
package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

type entry struct {
	Kind    string
	Name    string
	Link    string
	Size    int64
	Mode    int64
	Uid     int
	Gid     int
	Mtime   int64
	Xattrs  map[string]string
	Content string
}

type archive struct {
	Entries []entry
	Error   string
	// a file is too large to be read for a test
	TooLarge bool
}

const largest = 1 << 24
const xattr = "SCHILY.xattr."

func read(content []byte) archive {
	found := archive{Entries: []entry{}}
	// without Seek, as in a layer that is being decompressed
	reader := tar.NewReader(io.MultiReader(bytes.NewReader(content)))
	for {
		header, err := reader.Next()
		if err == io.EOF {
			return found
		}
		if err != nil {
			found.Error = err.Error()
			return found
		}
		if header.Size > largest {
			found.TooLarge = true
			return found
		}
		sum := sha256.New()
		size, err := io.Copy(sum, reader)
		if err != nil {
			found.Error = err.Error()
			return found
		}
		attributes := map[string]string{}
		for key, value := range header.PAXRecords {
			if strings.HasPrefix(key, xattr) && value != "" {
				attributes[hex.EncodeToString([]byte(key[len(xattr):]))] = hex.EncodeToString([]byte(value))
			}
		}
		found.Entries = append(found.Entries, entry{
			string(header.Typeflag), hex.EncodeToString([]byte(header.Name)), hex.EncodeToString([]byte(header.Linkname)),
			size, header.Mode & 07777, header.Uid, header.Gid, header.ModTime.Unix(), attributes, hex.EncodeToString(sum.Sum(nil)),
		})
	}
}

func main() {
	output := json.NewEncoder(os.Stdout)
	length := make([]byte, 8)
	for {
		if _, err := io.ReadFull(os.Stdin, length); err != nil {
			return
		}
		size, err := strconv.ParseInt(string(length), 16, 64)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		content := make([]byte, size)
		if _, err := io.ReadFull(os.Stdin, content); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		if err := output.Encode(read(content)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}
