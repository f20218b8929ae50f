"""Files, and batches of requests that may take their time: OpenAI's Files and Batch API on a folder."""
