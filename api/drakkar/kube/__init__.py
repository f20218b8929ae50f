"""Asynchronous access to the API server, for long-running components: requests, and local copies
of objects kept by list and watch. Needs aiohttp and orjson, which the components bring."""
