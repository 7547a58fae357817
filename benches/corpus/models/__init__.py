"""The programs, by what they are for; each is small enough to compile in half a minute."""
