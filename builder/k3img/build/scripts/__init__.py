"""Programs that mkosi runs inside its sandbox, on the image's tree.

Standard library only; they import nothing of ours.

They read what to do from `NAME.json` in mkosi's source folder ($SRCDIR), see `k3img.render.mkosi`.
"""
