"""Where traces come from: one package a source, each turning bytes from outside into `exporter.core.model`."""
