//! Syntax of names: DNS labels and subdomains, qualified names, label values.
