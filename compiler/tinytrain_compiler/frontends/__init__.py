"""From a model file to the compiler's graph: read, check, bring into canonical form, import."""
