"""The same model behind other servers, under the same load: the overhead of this server compared."""
