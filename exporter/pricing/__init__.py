"""Tokens → money, without network and without a clock: time is a parameter.

    providers   agno's model classes and providers → whose prices hold: listed, local, gateway or none
    tokens      counts as a span reports them → exclusive classes
    money       exact sums: integers of 10**-18 USD
    rates       USD for a token of each class, by tier
    entries     the user's own prices: which entry holds for a model
    values      single values of a price file
    pricefile   a price file → entries
    matching    whether a model is the very one that genai-prices names
    schedule    the prices of a model by time
    price_list  the prices of genai-prices, corrected
    prices      one span → its price, where it comes from, and why

A later line builds on earlier ones.
"""
