"""The importers: a subclass of `kern_nb.ingest.importer.Importer` in a module or package here is a format.

What is longer than a module is a package, whose ``__init__`` has the importer.
"""
