"""The Realtime server: committed changes and messages over WebSockets."""
