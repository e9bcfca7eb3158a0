"""The one implementation of the store's nouns over an SQL engine."""
