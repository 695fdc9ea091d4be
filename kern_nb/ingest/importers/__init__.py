"""The importers, a module each: a subclass of `kern_nb.ingest.importer.Importer` in a module here is a format."""
