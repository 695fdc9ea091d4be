"""What importers of several formats share: values of records that may have any type, trees of records, and files."""
