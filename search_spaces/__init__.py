"""What is searched, as data. Imports nothing but `dl4ia.search_space`."""
