"""Images on their way to a transaction: fetched ahead, built several at a time, their SIFs stored."""
