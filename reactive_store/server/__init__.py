"""The HTTP and websocket edge: one file per resource. The only home of Starlette and uvicorn."""
