//! What a CA knows of its certificates, read from its files.
