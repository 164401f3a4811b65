// The status page in the browser: search, filters in the URL, copy buttons, and what a sync under way is doing.
// Everything that comes from data becomes text by textContent, never markup.
"use strict";
(() => {
  const ROOT = document.documentElement.dataset.root;
  const FIRST = 50, MORE = 200;
  const SYMBOLS = { published: "✓", held: "‖", waiting: "…", building: "↻", failing: "!", gone: "∅", expiring: "↓", expired: "↓", blocked: "✕", dropped: "·", "not listed": "?" };
  const FIELDS = ["q", "state", "platform", "registry", "owner"];
  const byId = (id) => document.getElementById(id);
  const said = byId("said");

  // --- small things

  function element(tag, className, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function load(path, version, failed) {
    const script = document.createElement("script");
    script.src = `${ROOT}${path}?${version}`;
    if (failed) script.onerror = failed;
    document.head.append(script);
  }

  function time(seconds) {
    return `${new Date(seconds * 1000).toISOString().slice(0, 16).replace("T", " ")} UTC`;
  }

  function size(bytes) {
    const units = ["B", "kB", "MB", "GB", "TB"];
    let unit = 0;
    while (bytes >= 1000 && unit < 4) { bytes /= 1000; unit += 1; }
    return `${unit ? bytes.toFixed(1) : bytes} ${units[unit]}`;
  }

  function sentence(text) {
    const written = text.charAt(0).toUpperCase() + text.slice(1);
    return /[.!?…]$/.test(written) ? written : `${written}.`;
  }

  function state(value) {
    const made = element("span", `state ${value.replace(" ", "-")}`);
    const symbol = element("span", "", SYMBOLS[value] || "");
    symbol.setAttribute("aria-hidden", "true");
    made.append(symbol, ` ${value}`);
    return made;
  }

  function imagePath(name) {
    return `${ROOT}image/${name.split("/").map(encodeURIComponent).join("/")}.html`;
  }

  // --- copy buttons

  async function copy(button) {
    const text = button.parentElement.querySelector("code").textContent;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = element("textarea", "hidden", text);
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
      button.focus();
    }
    said.textContent = "Copied";
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; said.textContent = ""; }, 2000);
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button.copier");
    if (button) copy(button);
  });

  // --- what every page shows of the syncs

  let running = {};

  window.publisherRunning = (found) => {
    if (Date.now() / 1000 - found.started < 86400) running = found.steps;
    const names = Object.keys(running).length;
    if (names) byId("sync").append(` A sync is under way; ${names} image${names === 1 ? " is" : "s are"} not finished.`);
    overlay();
    if (rows) search();
  };

  function building(name, usable) {
    return `it is under way in the current run: ${running[name]}${usable ? "; until it is done, the published version stays" : ""}`;
  }

  function overlay() {
    const image = byId("image");
    if (!image || !Object.hasOwn(running, image.dataset.name)) return;
    byId("verdict").replaceChildren(state("building"));
    byId("reason").textContent = sentence(building(image.dataset.name, image.dataset.usable));
  }

  function showSync(found) {
    const shown = found.finished ? `Last sync ${time(found.started)}` : "There was no sync yet";
    byId("sync").textContent = `${shown}${found.next ? `, next sync ${time(found.next)}` : ""}.`;
    const checked = byId("checked");
    if (checked && found.finished) checked.textContent = time(found.started);
    load("data/running.js", Date.now());
  }

  const snippet = byId("snippet");
  if (snippet) {
    const badge = new URL(snippet.dataset.badge, location.href).href;
    const page = location.href.replace(/[?#].*/, "");
    snippet.querySelector("code").textContent = `[![${byId("image").dataset.name}](${badge})](${page})`;
    snippet.hidden = false;
  }

  // --- the table: [name, state, reason, since, until, usable, digest, source, changed, platforms, sandbox, sif, owner]

  const filter = byId("filter");
  let rows = null, patterns = [], missing = 0, repository = "", shown = FIRST;

  window.publisherStatus = (found) => {
    showSync(found);
    if (!filter) return;
    patterns = found.patterns;
    repository = found.repository;
    let open = found.shards.filter((version) => version).length;
    const gathered = [];
    const done = () => {
      open -= 1;
      if (open > 0) return;
      gathered.sort((one, other) => (one.name < other.name ? -1 : 1));
      rows = gathered;
      search();
    };
    window.publisherShard = (content) => {
      for (const values of content) gathered.push(row(values));
      done();
    };
    found.shards.forEach((version, number) => {
      if (version) load(`data/images-${String(number).padStart(2, "0")}.js`, version, () => { missing += 1; done(); });
    });
    if (!open) { open = 1; done(); }
  };

  function row(values) {
    const [name, state, given, since, until, usable, digest, source, changed, platforms, sandbox, sif, owner] = values;
    const reason = given || "it is published as its registry has it";
    const text = `${name}\n${source}\n${digest}\n${owner}`.toLowerCase();
    return { name, state, reason, since, until, usable, digest, source, changed, platforms, sandbox, sif, owner, registry: source.split("/")[0], text };
  }

  function stateOf(one) {
    return Object.hasOwn(running, one.name) ? "building" : one.state;
  }

  function reasonOf(one) {
    return Object.hasOwn(running, one.name) ? building(one.name, one.usable) : one.reason;
  }

  // A name as the table has it, from anything that a job may name: a path, a reference, with or without a tag.
  function plain(typed) {
    return typed.trim().replace(/^docker:\/\//, "").replace(/^\/cvmfs\/[^/]+\//, "");
  }

  function spellings(typed) {
    const text = plain(typed);
    const tagged = /:[^/]*$/.test(text) ? text : `${text}:latest`;
    const found = [typed.trim(), text, tagged];
    for (const name of [text, tagged]) found.push(`docker.io/${name}`, `docker.io/library/${name}`);
    return new Set(found);
  }

  function matches(wanted) {
    const words = wanted.q.toLowerCase().split(/\s+/).filter(Boolean);
    return rows.filter((one) =>
      words.every((word) => one.text.includes(word))
      && (!wanted.state || stateOf(one) === wanted.state)
      && (!wanted.platform || one.platforms.includes(wanted.platform))
      && (!wanted.registry || one.registry === wanted.registry)
      && (!wanted.owner || one.owner === wanted.owner));
  }

  function search() {
    const wanted = Object.fromEntries(FIELDS.map((field) => [field, filter.elements[field].value]));
    const keys = spellings(wanted.q);
    const exact = wanted.q ? rows.find((one) => keys.has(one.name) || keys.has(one.source) || keys.has(one.digest)) : undefined;
    const simple = { ...wanted, q: plain(wanted.q) };
    let found = matches(simple);
    if (exact && !found.includes(exact) && !wanted.state && !wanted.platform && !wanted.registry && !wanted.owner) found = [exact, ...found];
    if (exact && found.includes(exact)) found = [exact, ...found.filter((one) => one !== exact)];
    showAnswer(wanted.q.trim(), exact, found);
    byId("count").textContent = `${found.length.toLocaleString("en")} image${found.length === 1 ? "" : "s"}${found.length > shown ? `, ${shown} shown` : ""}${missing ? "; part of the list could not be loaded: reload the page" : ""}`;
    byId("images").replaceChildren(...found.slice(0, shown).map(item));
    byId("more").hidden = found.length <= shown;
  }

  function item(one) {
    const made = element("li");
    const link = element("a", "name", one.name);
    link.href = imagePath(one.name);
    const value = stateOf(one);
    const forms = [one.sandbox && `sandbox ${size(one.sandbox)}`, one.sif && `SIF ${size(one.sif)}`].filter(Boolean).join(", ");
    made.append(
      link, state(value),
      element("span", "changed", one.changed ? `changed ${time(one.changed).slice(0, 10)}` : ""),
      element("span", "forms", forms),
      element("span", "platforms", one.platforms.join(", ")));
    if (value !== "published") made.append(element("span", "reason", reasonOf(one)));
    return made;
  }

  function showAnswer(typed, exact, found) {
    const box = byId("answer");
    if (exact) {
      const value = stateOf(exact);
      const line = element("p");
      const link = element("a", "", exact.name);
      link.href = imagePath(exact.name);
      line.append(link, " ", state(value), exact.since && value === exact.state ? ` since ${time(exact.since)}` : "");
      const reason = element("p", "", sentence(reasonOf(exact)) + (exact.until ? ` It can be used until ${time(exact.until)}.` : ""));
      const digest = element("p", "", exact.digest ? "from " : "");
      if (exact.digest) digest.append(element("code", "", exact.digest));
      box.replaceChildren(line, reason, ...(exact.digest ? [digest] : []));
    } else if (typed && !found.length) {
      const line = element("p");
      line.append(`${typed} `, state("not listed"));
      box.replaceChildren(line, element("p", "", why(typed)));
    } else {
      box.replaceChildren();
    }
  }

  function why(typed) {
    const names = [...spellings(typed)];
    const pattern = patterns.find((one) => names.some((name) => name.startsWith(one.prefix)));
    if (pattern) {
      const kept = pattern.keep ? `the ${pattern.keep} newest tags` : "all its tags";
      return `The list has the pattern ${pattern.pattern}, which publishes ${kept}, and this is none of them. The newest: ${pattern.newest.join(", ") || "none"}.`;
    }
    const similar = alike(plain(typed));
    return `No entry of the list has this name. ${similar.length ? `Did you mean ${similar.join(", ")}? ` : ""}To add it, propose a change of images.yaml.`;
  }

  // Up to three names that may have been meant: in the same repository, or in one that is one or two letters away.
  function alike(name) {
    const typed = name.toLowerCase(), repositoryOf = (text) => text.toLowerCase().replace(/:[^/]*$/, "");
    const near = rows.map((one) => [distance(repositoryOf(one.name), repositoryOf(typed)), distance(one.name.toLowerCase(), typed), one.name]);
    return near.filter(([first]) => first <= 2).sort((one, other) => one[0] - other[0] || one[1] - other[1]).slice(0, 3).map(([, , found]) => found);
  }

  // Edits between two texts; 3 for more than two.
  function distance(one, other) {
    if (Math.abs(one.length - other.length) > 2) return 3;
    let before = Array.from({ length: other.length + 1 }, (_, index) => index);
    for (let i = 1; i <= one.length; i += 1) {
      const now = [i];
      for (let j = 1; j <= other.length; j += 1) {
        now[j] = Math.min(before[j] + 1, now[j - 1] + 1, before[j - 1] + (one[i - 1] === other[j - 1] ? 0 : 1));
      }
      if (Math.min(...now) > 2) return 3;
      before = now;
    }
    return Math.min(before[other.length], 3);
  }

  // --- the URL has the filters

  function readUrl() {
    const given = new URLSearchParams(location.search || location.hash.slice(1));
    for (const field of FIELDS) {
      const value = given.get(field) || "";
      const control = filter.elements[field];
      if (control.tagName === "SELECT" && value && ![...control.options].some((option) => option.value === value)) {
        control.add(new Option(value, value));
      }
      control.value = value;
    }
  }

  function writeUrl() {
    const set = FIELDS.filter((field) => filter.elements[field].value).map((field) => [field, filter.elements[field].value]);
    const query = new URLSearchParams(set).toString();
    history.replaceState(null, "", query ? `?${query}` : location.pathname);
  }

  function changed() {
    shown = FIRST;
    writeUrl();
    if (rows) search();
  }

  function move(event) {
    if (event.key === "/" && event.target === document.body) {
      filter.elements.q.focus();
      event.preventDefault();
    }
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
    const links = [...document.querySelectorAll("#images .name")];
    const at = links.indexOf(document.activeElement);
    if (at < 0 && (event.key === "ArrowUp" || document.activeElement !== filter.elements.q)) return;
    const next = event.key === "ArrowDown" ? links[at + 1] : links[at - 1] || filter.elements.q;
    if (next) { next.focus(); event.preventDefault(); }
  }

  if (filter) {
    readUrl();
    filter.addEventListener("input", changed);
    filter.addEventListener("submit", (event) => {
      event.preventDefault();
      const first = document.querySelector("#images .name");
      if (first && byId("answer").childElementCount) first.click();
    });
    window.addEventListener("popstate", () => { readUrl(); if (rows) search(); });
    document.addEventListener("keydown", move);
    byId("more").addEventListener("click", () => {
      const first = shown;
      shown += MORE;
      search();
      document.querySelectorAll("#images .name")[first].focus();
    });
  }
  load("data/status.js", Date.now());
})();
