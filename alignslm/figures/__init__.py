"""The values behind every reported number, one column per system and metric, and metrics of all texts together."""
