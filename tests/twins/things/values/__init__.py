"""Numbers, texts and sizes that torch may write into code or ask about."""
