"""The Generate tab: its layout, and what its events do."""
