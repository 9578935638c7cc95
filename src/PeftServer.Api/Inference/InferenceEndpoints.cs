using System.Text.Json.Nodes;
using Microsoft.Extensions.Options;
using PeftServer.Api.Documentation;
using PeftServer.Api.Models;
using PeftServer.Core;
using PeftServer.Core.Http;
using PeftServer.Core.Inference;
using PeftServer.Core.Models;

namespace PeftServer.Api.Inference;

/// <summary>Chat, completions and embeddings: passed on to the inference host that serves the model.</summary>
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
            inference.MapPost("/completions", ForwardAsync).WithName("CreateCompletion").WithSummary("Continue a text")
                .WithMetadata(new ForwardedBody()).Produces<JsonObject>().ProducesErrors(400, 404, 413, 503)
                .WithExample("Completion", """{ "model": "tiny-llama", "prompt": "Call me", "max_tokens": 16 }""");
            inference.MapPost("/embeddings", ForwardAsync).WithName("CreateEmbedding").WithSummary("Embed texts")
                .WithMetadata(new ForwardedBody()).Produces<JsonObject>().ProducesErrors(400, 404, 413, 503)
                .WithExample("Embedding", """{ "model": "tiny-llama", "input": ["a text", "another"] }""");
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
