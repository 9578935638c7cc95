using System.Text.Json.Nodes;
using Microsoft.Extensions.Options;
using PeftServer.Api.Documentation;
using PeftServer.Api.Models;
using PeftServer.Core;
using PeftServer.Core.Http;
using PeftServer.Core.Inference;
using PeftServer.Core.Models;

namespace PeftServer.Api.Inference;

/// <summary>What models answer: passed on to the inference host that serves the model.</summary>
internal static class InferenceEndpoints
{
    private const int RetryAfterSeconds = 5;

    extension(WebApplication app)
    {
        public void MapInference()
        {
            var inference = app.MapGroup("/v1").WithTags("Inference");

            inference.MapPost("/chat/completions", ForwardAsync).WithName("CreateChatCompletion").WithSummary("Chat with a base or fine-tuned model")
                .WithMetadata(new ForwardedBody()).Produces<JsonObject>().ProducesErrors(400, 404, 413, 503)
                .WithExample("Chat", """
                    {
                      "model": "tiny-llama",
                      "messages": [
                        { "role": "system", "content": "Classify the e-mail as spam or ham." },
                        { "role": "user", "content": "You have won! Claim your prize now." }
                      ],
                      "temperature": 0,
                      "max_tokens": 4
                    }
                    """)
                .WithExample("Streamed chat", """
                    { "model": "tiny-llama", "stream": true, "messages": [{ "role": "user", "content": "Call me Ishmael." }] }
                    """);
            inference.MapPost("/completions", ForwardAsync).WithName("CreateCompletion").WithSummary("Continue a text, or with an encoder-decoder read one and write another")
                .WithMetadata(new ForwardedBody()).Produces<JsonObject>().ProducesErrors(400, 404, 413, 503)
                .WithExample("Completion", """{ "model": "tiny-llama", "prompt": "Call me", "max_tokens": 16 }""")
                .WithExample("Encoder-decoder", """{ "model": "t5-small", "prompt": "translate English to German: Good morning.", "temperature": 0, "max_tokens": 32 }""");
            inference.MapPost("/embeddings", ForwardAsync).WithName("CreateEmbedding").WithSummary("Embed texts")
                .WithMetadata(new ForwardedBody()).Produces<JsonObject>().ProducesErrors(400, 404, 413, 503)
                .WithExample("Embedding", """{ "model": "all-MiniLM-L6-v2", "input": ["a text", "another"] }""");
            app.MapReading(inference);
        }

        /// <summary>Paths that vLLM has without a version are there without one too.</summary>
        private void MapReading(RouteGroupBuilder inference)
        {
            inference.MapPost("/classify", ForwardAsync).WithName("Classify").WithSummary("Classify texts")
                .WithDescription(
                    "The answer is vLLM's: `label` and `probs` for each text. `input` is a text, a pair `{\"text\", \"text_pair\"}`, token ids, or a list of them; a chat "
                    + "goes into `messages`. With a single class, as a reward model has, `score` is the raw score and `probs` its sigmoid.")
                .WithMetadata(new ForwardedBody()).Produces<JsonObject>().ProducesErrors(400, 404, 413, 503)
                .WithExample("Texts", """{ "model": "ft:bert:acme:spam:1", "input": ["You have won!", "See you at noon."] }""")
                .WithExample("Reward of a chat", """
                    {
                      "model": "ft:tiny-llama:acme:reward:1",
                      "messages": [{ "role": "user", "content": "What is 2 + 2?" }, { "role": "assistant", "content": "4" }]
                    }
                    """);
            inference.MapPost("/score", ForwardAsync).WithName("Score").WithSummary("Score pairs of texts with a model of one class")
                .WithMetadata(new ForwardedBody()).Produces<JsonObject>().ProducesErrors(400, 404, 413, 503)
                .WithExample("One against several", """{ "model": "cross-encoder", "text_1": "What is a whale?", "text_2": ["A mammal of the sea.", "A town in Utah."] }""");
            inference.MapPost("/token_classification", ForwardAsync).WithName("ClassifyTokens").WithSummary("Tag the words of texts")
                .WithDescription("Parameters and entities are those of transformers' pipeline; `start` and `end` count code points.")
                .WithMetadata(new ForwardedBody()).Produces<JsonObject>().ProducesErrors(400, 404, 413, 503)
                .WithExample("Entities", """{ "model": "ft:bert:acme:ner:1", "input": "Ishmael sailed from Nantucket." }""");
            inference.MapPost("/question_answering", ForwardAsync).WithName("AnswerQuestion").WithSummary("Find the answer to a question in a text")
                .WithDescription("Parameters and answers are those of transformers' pipeline; `start` and `end` count code points.")
                .WithMetadata(new ForwardedBody()).Produces<JsonObject>().ProducesErrors(400, 404, 413, 503)
                .WithExample("Question", """{ "model": "ft:bert:acme:squad:1", "question": "Who sailed?", "context": "Ishmael sailed from Nantucket." }""");
            inference.MapPost("/pooling", ForwardAsync).WithName("Pool").WithSummary("Texts as the numbers that a model gives for them")
                .WithDescription(
                    "The answer is vLLM's: `data` holds a text's vector, the probabilities of its classes (their raw scores with `use_activation` false), or for a model that "
                    + "tags words a row for each token. `input` and `messages` are those of /v1/classify.")
                .WithMetadata(new ForwardedBody()).Produces<JsonObject>().ProducesErrors(400, 404, 413, 503)
                .WithExample("Texts", """{ "model": "all-MiniLM-L6-v2", "input": ["a text", "another"] }""");
            inference.MapPost("/tokenize", ForwardAsync).WithName("Tokenize").WithSummary("A text or a chat as the tokens that a model reads")
                .WithDescription("The answer is vLLM's: `tokens`, their `count`, and `max_model_len`; with `return_token_strs` also `token_strs`.")
                .WithMetadata(new ForwardedBody()).Produces<JsonObject>().ProducesErrors(400, 404, 413, 503)
                .WithExample("Text", """{ "model": "tiny-llama", "prompt": "Call me Ishmael." }""")
                .WithExample("Chat", """{ "model": "tiny-llama", "messages": [{ "role": "user", "content": "Call me Ishmael." }] }""");
            inference.MapPost("/detokenize", ForwardAsync).WithName("Detokenize").WithSummary("Tokens as text")
                .WithMetadata(new ForwardedBody()).Produces<JsonObject>().ProducesErrors(400, 404, 413, 503)
                .WithExample("Tokens", """{ "model": "tiny-llama", "tokens": [1, 2, 3] }""");
            foreach (var path in (string[])["/classify", "/score", "/pooling", "/tokenize", "/detokenize"])
            {
                app.MapPost(path, (HttpContext context, ModelDirectory models, InferenceHosts hosts, InferenceForwarder forwarder, IOptions<ApiOptions> options, CancellationToken cancellationToken) =>
                {
                    context.Request.Path = $"/v1{path}"; // as the host knows it
                    return ForwardAsync(context, models, hosts, forwarder, options, cancellationToken);
                }).ExcludeFromDescription();
            }
        }
    }

    private static async Task<IResult> ForwardAsync(
        HttpContext context, ModelDirectory models, InferenceHosts hosts, InferenceForwarder forwarder, IOptions<ApiOptions> options,
        CancellationToken cancellationToken)
    {
        using var body = await RequestBody.ReadJsonAsync(context.Request, options.Value.MaxRequestBytes, cancellationToken);
        var model = ModelField.Read(body.GetBuffer().AsSpan(0, (int)body.Length));
        if (await models.ResolveAsync(Tenancy.DefaultProject, model, cancellationToken) is not { Base: not null } resolved)
        {
            return ModelEndpoints.NoModel(model);
        }

        var able = await hosts.FindAsync(resolved.BaseName, cancellationToken);
        return await forwarder.ForwardAsync(context, body, able) ?? new ApiError
        {
            StatusCode = StatusCodes.Status503ServiceUnavailable,
            Type = "service_unavailable",
            Code = "no_inference_host",
            RetryAfterSeconds = RetryAfterSeconds,
            Message = $"No inference host is there to serve '{ForeignText.Clean(model, 200)}' now. " +
                "Try again soon, or start one with `peftserver inference`.",
        };
    }
}
