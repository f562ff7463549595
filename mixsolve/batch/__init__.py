"""Thousands of small games at once, in compiled code on all cores."""
