"""Tools in conversations: how a base's chat template shows them, how calls are written and read, what calls may be."""
