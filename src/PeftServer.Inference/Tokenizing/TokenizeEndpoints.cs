using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using PeftServer.Core.Http;
using PeftServer.Engine;
using PeftServer.Engine.Models;
using PeftServer.Engine.Tokenizers;
using PeftServer.Engine.Tokenizers.ChatTemplates;
using PeftServer.Inference.Reading;
using PeftServer.Inference.Writing;

namespace PeftServer.Inference.Tokenizing;

/// <summary>Texts and chats as the tokens that a model reads, and back.</summary>
internal static class TokenizeEndpoints
{
    extension(IEndpointRouteBuilder routes)
    {
        public void MapTokenizing()
        {
            routes.MapPost("/v1/tokenize", TokenizeAsync);
            routes.MapPost("/v1/detokenize", DetokenizeAsync);
        }
    }

    private static Task<IResult> TokenizeAsync(JsonBody<TokenizeRequest> body, TokenizingModels models, HttpContext context) =>
        models.ServeAsync(body.Value.Model, model =>
        {
            var request = body.Value;
            var tokens = (request.Prompt, request.Messages) switch
            {
                ({ } prompt, null) => model.Tokenizer.Encode(prompt, request.AddSpecialTokens ?? true),
                (null, { } messages) => Templated(model, new Conversation { Messages = messages, Tools = request.Tools }, request.AddGenerationPrompt ?? true),
                _ => throw Fault("prompt", "Send a text in 'prompt', or a chat in 'messages'."),
            };
            return new TokenizeAnswer(tokens.Length, model.MaxLength, tokens, request.ReturnTokenStrs is true ? [.. tokens.Select(id => model.Tokenizer.IdToToken(id) ?? "")] : null);
        }, context.RequestAborted);

    private static Task<IResult> DetokenizeAsync(JsonBody<DetokenizeRequest> body, TokenizingModels models, HttpContext context) =>
        models.ServeAsync(body.Value.Model, model => body.Value.Tokens.Any(id => id < 0 || id >= model.Vocabulary)
            ? throw Fault("tokens", $"'tokens' must hold token ids from 0 to {model.Vocabulary - 1}.")
            : new DetokenizeAnswer(model.Tokenizer.Decode([.. body.Value.Tokens], skipSpecialTokens: false)), context.RequestAborted);

    private static int[] Templated(TokenizingModel model, Conversation chat, bool addGenerationPrompt)
    {
        try
        {
            return (model.Chat ?? throw Fault("messages", "The model has no chat template. Send the text in 'prompt'.")).EncodePrompt(chat, addGenerationPrompt);
        }
        catch (TemplateException e)
        {
            throw Fault("messages", $"The model's chat template does not take these messages: {e.Message}");
        }
    }

    private static ApiErrorException Fault(string field, string message) => new(ApiError.BadRequest(message, field, "invalid_value"));
}

/// <summary>A model, as far as its tokens go.</summary>
/// <param name="Tokenizer">Texts to tokens.</param>
/// <param name="Chat">Chats to tokens; null where there is no template.</param>
/// <param name="Vocabulary">Tokens that the model knows.</param>
/// <param name="MaxLength">Tokens that it takes.</param>
internal sealed record TokenizingModel(Tokenizer Tokenizer, ChatEncoder? Chat, int Vocabulary, int MaxLength);

/// <summary>Models of every task, for their tokens.</summary>
internal sealed class TokenizingModels(RequestedModels requested, ServedModels models, Readers readers)
{
    /// <summary>Answers with the model of that name.</summary>
    public async Task<IResult> ServeAsync<T>(string name, Func<TokenizingModel, T> answer, CancellationToken cancellationToken)
    {
        var model = await requested.FindAsync(name, path: null, cancellationToken);
        return await RequestedModels.ServeAsync(model, async () => Results.Json(answer(await LoadAsync(model, cancellationToken)), PeftJson.Options));
    }

    private async Task<TokenizingModel> LoadAsync(RequestedModel model, CancellationToken cancellationToken)
    {
        if (model.Head is ModelHead.CausalLM or ModelHead.Seq2SeqLM)
        {
            var writer = await Writer.LoadAsync(model, models, cancellationToken);
            return new TokenizingModel(writer.Served.Tokenizer, writer.Speech.Chat, writer.Limits.Vocabulary, writer.Limits.MaxLength);
        }

        var reader = await readers.LoadAsync(model, cancellationToken);
        return new TokenizingModel(reader.Served.Tokenizer, reader.Served.Chat, reader.Limits.Vocabulary, reader.Limits.MaxLength);
    }
}
