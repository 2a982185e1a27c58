"""Plan -> the texts of files: mkosi, repart, units, k3s configuration. Pure; the only user of jinja2."""
