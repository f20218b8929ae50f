"""Where nodes stand on the fabric, from what clouds, files and InfiniBand say. Pure."""
