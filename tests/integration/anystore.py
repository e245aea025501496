"""How programs of the tests set a store up, with whichever generation of mcpstore is installed."""

from __future__ import annotations

from integration.harness import STDIO_SERVER

#: Defines `set_up(name)`: a store with the definitions of that file, and the service `lab` connected.
SET_UP = f"""
import json, os, signal, sys, threading, time, warnings

warnings.simplefilter("ignore")
from mcpstore import MCPStore

def set_up(name="mcp.json"):
    with open(name, "w") as config:
        config.write('{{"mcpServers": {{}}}}')
    try:
        from mcpstore._rust import MCPStore as NativeStore
        store = MCPStore(NativeStore.setup_with_options(name)).for_store()
    except ImportError:
        store = MCPStore.setup_store(mcpjson_path=name).for_store()
    store.add_service({{"name": "lab", "command": sys.executable, "args": [{str(STDIO_SERVER)!r}]}})
    store.wait_service("lab")
    return store
"""
