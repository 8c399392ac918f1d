"""Order of units, attempts at them, and copies of slow ones; knows neither Ray nor a clock."""
