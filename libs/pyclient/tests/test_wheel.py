"""What the build's wheel holds."""

import pathlib
import subprocess
import tempfile
import unittest
import zipfile

import optserve

PACKAGE = pathlib.Path(__file__).resolve().parents[1]


class Wheel(unittest.TestCase):
    def test_has_the_whole_package_and_nothing_compiled(self):
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([PACKAGE / "make_wheel", folder], check=True, capture_output=True)
            wheel, = pathlib.Path(folder).iterdir()
            self.assertEqual(wheel.name, f"optserve-{optserve.__version__}-py3-none-any.whl")
            with zipfile.ZipFile(wheel) as content:
                names = set(content.namelist())
                meta = content.read(f"optserve-{optserve.__version__}.dist-info/METADATA").decode()
        ours = {f"optserve/{path.name}" for path in PACKAGE.glob("src/optserve/*") if path.suffix in (".py", ".typed")}
        self.assertEqual({name for name in names if name.startswith("optserve/")}, ours)
        self.assertIn("optserve/py.typed", ours)
        for needed in ("msgpack", "pyzmq", "Requires-Python: >=3.9"):
            self.assertIn(needed, meta)


if __name__ == "__main__":
    unittest.main()
