-- Answers as the Exa API gives them, made up for the demonstration: pages, authors and texts do
-- not exist, and texts and result lists are shortened. Names, nesting and prices are the API's.

INSERT INTO demo.answers (name, path, body) VALUES
('search', '/search', $json$
{
  "requestId": "5f0c1e9b7a4d4c6f9d2e8b3a61c07f54",
  "resolvedSearchType": "neural",
  "results": [
    {
      "id": "https://tides.example.org/2026/storage",
      "title": "Grid storage after lithium",
      "url": "https://tides.example.org/2026/storage",
      "publishedDate": "2026-03-04T08:00:00.000Z",
      "author": "Ines Moreau",
      "score": 0.4128,
      "text": "Sodium cells have left the laboratory. Three utilities ..."
    },
    {
      "id": "https://notes.example.net/flow-batteries",
      "title": "Flow batteries, a field guide",
      "url": "https://notes.example.net/flow-batteries",
      "publishedDate": "2025-11-19T14:30:00.000Z",
      "author": "K. Adeyemi",
      "score": 0.3907,
      "text": "A tank of vanadium salts does not care how often it is ..."
    }
  ],
  "costDollars": {
    "total": 0.005,
    "breakDown": [
      {
        "search": 0.005,
        "contents": 0,
        "breakdown": {"neuralSearch": 0.005, "deepSearch": 0, "contentText": 0}
      }
    ],
    "perRequestPrices": {
      "neuralSearch_1_25_results": 0.005,
      "neuralSearch_26_100_results": 0.025,
      "deepSearch_1_25_results": 0.015
    },
    "perPagePrices": {"contentText": 0.001, "contentSummary": 0.001}
  }
}$json$),

('wide search', '/search', $json$
{
  "requestId": "c2b8d4170e6f4a0db1f93e5586a7290d",
  "resolvedSearchType": "neural",
  "results": [
    {
      "id": "https://press.example.com/sodium-plant",
      "title": "First sodium-ion plant opens",
      "url": "https://press.example.com/sodium-plant",
      "publishedDate": "2026-01-12T06:15:00.000Z",
      "author": null,
      "score": 0.3811,
      "text": "The plant will make two gigawatt hours a year, and its ..."
    }
  ],
  "costDollars": {
    "total": 0.025,
    "breakDown": [
      {
        "search": 0.025,
        "contents": 0,
        "breakdown": {"neuralSearch": 0.025, "deepSearch": 0, "contentText": 0}
      }
    ],
    "perRequestPrices": {
      "neuralSearch_1_25_results": 0.005,
      "neuralSearch_26_100_results": 0.025,
      "deepSearch_1_25_results": 0.015
    },
    "perPagePrices": {"contentText": 0.001, "contentSummary": 0.001}
  }
}$json$),

('deep search', '/search', $json$
{
  "requestId": "90e7a3bd52c84f1f8c640b17d9ee3a28",
  "resolvedSearchType": "deep",
  "results": [
    {
      "id": "https://archive.example.org/papers/iron-air",
      "title": "Iron-air cells at 1,000 cycles",
      "url": "https://archive.example.org/papers/iron-air",
      "publishedDate": "2025-09-30T00:00:00.000Z",
      "author": "L. Sandoval, P. Nyberg",
      "score": 0.4402,
      "text": "Capacity fade is dominated by the electrolyte, not by ..."
    }
  ],
  "costDollars": {
    "total": 0.015,
    "breakDown": [
      {
        "search": 0.015,
        "contents": 0,
        "breakdown": {"neuralSearch": 0, "deepSearch": 0.015, "contentText": 0}
      }
    ],
    "perRequestPrices": {
      "neuralSearch_1_25_results": 0.005,
      "neuralSearch_26_100_results": 0.025,
      "deepSearch_1_25_results": 0.015
    }
  }
}$json$),

('contents', '/contents', $json$
{
  "requestId": "1d44c90f3b7e4e5aa2c5f8106b9d7ce3",
  "results": [
    {
      "id": "https://tides.example.org/2026/storage",
      "title": "Grid storage after lithium",
      "url": "https://tides.example.org/2026/storage",
      "author": "Ines Moreau",
      "text": "Sodium cells have left the laboratory. Three utilities ..."
    },
    {
      "id": "https://notes.example.net/flow-batteries",
      "title": "Flow batteries, a field guide",
      "url": "https://notes.example.net/flow-batteries",
      "author": "K. Adeyemi",
      "text": "A tank of vanadium salts does not care how often it is ..."
    },
    {
      "id": "https://press.example.com/sodium-plant",
      "title": "First sodium-ion plant opens",
      "url": "https://press.example.com/sodium-plant",
      "author": null,
      "text": "The plant will make two gigawatt hours a year, and its ..."
    }
  ],
  "statuses": [
    {"id": "https://tides.example.org/2026/storage", "status": "success"},
    {"id": "https://notes.example.net/flow-batteries", "status": "success"},
    {"id": "https://press.example.com/sodium-plant", "status": "success"}
  ],
  "costDollars": {
    "total": 0.003,
    "breakDown": [
      {
        "search": 0,
        "contents": 0.003,
        "breakdown": {"neuralSearch": 0, "deepSearch": 0, "contentText": 0.003}
      }
    ],
    "perPagePrices": {"contentText": 0.001, "contentSummary": 0.001}
  }
}$json$),

('answer', '/answer', $json$
{
  "requestId": "e86f25ba0d914c37b5a80f4cd3127e69",
  "answer": "Sodium-ion cells are the first to be sold in quantity ...",
  "citations": [
    {
      "id": "https://press.example.com/sodium-plant",
      "title": "First sodium-ion plant opens",
      "url": "https://press.example.com/sodium-plant",
      "publishedDate": "2026-01-12T06:15:00.000Z",
      "author": null
    }
  ],
  "costDollars": {"total": 0.005}
}$json$),

('crossing', '/search', $json$
{
  "requestId": "7be1903fd6524a8e9f0d11c8a4b62c75",
  "resolvedSearchType": "deep",
  "results": [
    {
      "id": "https://archive.example.org/papers/sodium-cathodes",
      "title": "A survey of sodium cathodes",
      "url": "https://archive.example.org/papers/sodium-cathodes",
      "publishedDate": "2026-02-02T00:00:00.000Z",
      "author": "M. Ferrante",
      "score": 0.4295,
      "text": "We compare 112 cathode materials by cost per cycle. ..."
    }
  ],
  "costDollars": {
    "total": 0.015,
    "breakDown": [
      {
        "search": 0.015,
        "contents": 0,
        "breakdown": {"neuralSearch": 0, "deepSearch": 0.015, "contentText": 0}
      }
    ]
  }
}$json$),

('paid search', '/search', $json$
{
  "requestId": "38d5fa6714be4c9292ed60a7c1f0835b",
  "resolvedSearchType": "neural",
  "results": [
    {
      "id": "https://market.example.com/prices/sodium-carbonate",
      "title": "Soda ash prices this quarter",
      "url": "https://market.example.com/prices/sodium-carbonate",
      "publishedDate": "2026-04-01T05:00:00.000Z",
      "author": "Market desk",
      "score": 0.3756,
      "text": "Prices were flat in spite of new demand from makers ..."
    }
  ],
  "costDollars": {
    "total": 0.005,
    "breakDown": [
      {
        "search": 0.005,
        "contents": 0,
        "breakdown": {"neuralSearch": 0.005, "deepSearch": 0, "contentText": 0}
      }
    ]
  }
}$json$),

('nothing found', '/contents', $json$
{
  "requestId": "a90b6c1e5d3f4b07843f2ec69d18750c",
  "results": [],
  "statuses": [
    {
      "id": "https://gone.example.org/page",
      "status": "error",
      "error": {"tag": "CRAWL_NOT_FOUND", "httpStatusCode": 404}
    }
  ],
  "costDollars": {"total": 0}
}$json$);
