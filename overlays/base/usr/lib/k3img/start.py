"""Starts one of k3img's services: `/usr/bin/python3 -IS /usr/lib/k3img/start.py SERVICE`.

-I and -S keep out the environment and the site module, which costs half a second under emulation.
"""

import sys

sys.path[:0] = ["/usr/lib/k3img"]
sys.path.append("/usr/lib/python3/dist-packages")

from k3img.device.main import main  # noqa: E402 - the path comes first

sys.exit(main(sys.argv[1:]))
