"""Where compiled models run: this machine, firmware, emulated boards."""
