"""The API and the web pages: live state from the cluster, history from a database."""
