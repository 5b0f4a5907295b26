"""Bytes that the firmware takes of RAM and flash, by purpose. Whether they fit is asked in fit/."""
