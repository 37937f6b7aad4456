"""The server: many requests on one engine, behind the OpenAI API, with a page that shows Medusa at work."""
