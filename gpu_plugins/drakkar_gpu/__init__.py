"""The node side of placement: accelerators, how they are linked, and whether they are well."""
