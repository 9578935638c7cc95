using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using PeftServer.Core.Http;
using PeftServer.Inference.Writing;

namespace PeftServer.Inference.Completions;

/// <summary><c>POST /v1/completions</c>: a text continued, or with an encoder-decoder read and answered.</summary>
internal static class CompletionEndpoints
{
    extension(IEndpointRouteBuilder routes)
    {
        public void MapCompletions() => routes.MapPost("/v1/completions", CompleteAsync);
    }

    private static Task<IResult> CompleteAsync(JsonBody<CompletionRequest> body, WritingServices services, HttpContext context) =>
        services.ServeAsync(body.Value, context, writer => new CompletionAnswers(body.Value, writer, Prompts(body.Value, writer), services.Stamp("cmpl")));

    private static IReadOnlyList<TextInput> Prompts(CompletionRequest request, Writer writer)
    {
        if (writer.Limits.IsEncoderDecoder && (request.Echo is true || request.PromptLogprobs is not null))
        {
            throw Fault(request.Echo is true ? "echo" : "prompt_logprobs", $"'{writer.Name}' reads its prompt and writes a text of its own: the prompt is no part of it.");
        }

        var least = writer.Limits.IsEncoderDecoder || request.MaxTokens is 0 ? 0 : 1; // tokens that must be left for the answer
        var texts = new TextInputs("prompt", writer.Served.Tokenizer, writer.Limits.Vocabulary, writer.PromptRoom - least) { AddsSpecialTokens = request.AddSpecialTokens ?? true };
        var prompt = request.Suffix is { Length: > 0 } suffix ? FillInTheMiddle.Prompt(request.Prompt, suffix, writer) : request.Prompt;
        var prompts = texts.Read(prompt);
        request.CheckAnswers(prompts.Count);
        return prompts;
    }

    private static ApiErrorException Fault(string field, string message) => new(ApiError.BadRequest($"{message} Leave '{field}' out.", field, "unsupported_parameter"));
}
