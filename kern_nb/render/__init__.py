"""Records and tables in, markup and text out. The only place that writes HTML, and it escapes everything."""
