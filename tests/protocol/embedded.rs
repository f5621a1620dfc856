//! What the embedded server does beyond the official one, and its binary.
