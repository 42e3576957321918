"""The web gateway: a page for phones and watches, and OpenAI's API, in front of the daemon.

    browser  → HTTP, WebSocket → app.py → security.py → bridge.py → dealer.py → daemon
    programs → /v1/…           → app.py → security.py → openai_api.py → clients.aio → daemon

It is an ordinary local client: it says in every request for which device it is, and the daemon
decides what that device may do. Nothing is imported here, so that the command line stays quick.
"""
