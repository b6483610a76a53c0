"""Where traces come from: one module a source, each turning bytes from outside into `exporter.core.model`."""
