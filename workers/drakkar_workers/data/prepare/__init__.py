"""From files of documents to shards of tokens: read, clean, deduplicate, tokenise, pack."""
