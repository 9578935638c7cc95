using System.Text.Json;
using PeftServer.Core.Http;
using PeftServer.Engine.Tokenizers.ChatTemplates;
using PeftServer.Inference.Writing;

namespace PeftServer.Inference.Chat;

/// <summary>
/// Chats as the tokens that a model is given: through its chat template; and where an encoder-decoder has none, a single message of the user is
/// the text it reads.
/// </summary>
internal static class ChatPrompt
{
    private const string Field = "messages";

    /// <summary>Throws <see cref="ApiErrorException"/> where the template does not take the chat, there is none, or it is too long.</summary>
    public static int[] Encode(ChatRequest request, Writer writer)
    {
        var prompt = writer.Speech.Chat is { } chat ? Templated(request, chat)
            : writer.Limits.IsEncoderDecoder && OnlyText(request.Messages) is { } text ? writer.Served.Tokenizer.Encode(text)
            : throw Fault(
                $"'{writer.Name}' has no chat template. " + (writer.Limits.IsEncoderDecoder
                    ? "Send exactly one message, of the user and of text, for its encoder to read; or use POST /v1/completions."
                    : "Use POST /v1/completions, or lay a chat_template.jinja into the model's folder."),
                "no_chat_template");

        return prompt.Length <= writer.PromptRoom && writer.RoomAfter(prompt) > 0
            ? prompt
            : throw Fault($"This model takes {writer.PromptRoom} tokens, but the messages alone are {prompt.Length}. Shorten them.", "context_length_exceeded");
    }

    private static int[] Templated(ChatRequest request, ChatEncoder chat)
    {
        try
        {
            return chat.EncodePrompt(
                new Conversation { Messages = request.Messages, Tools = request.Tools, TemplateArguments = request.ChatTemplateKwargs }, request.AddGenerationPrompt ?? true);
        }
        catch (TemplateException e)
        {
            throw Fault($"The model's chat template does not take these messages: {e.Message}", "invalid_messages");
        }
    }

    /// <summary>The text of a chat that is one message of the user; null where it is more, or of more than text.</summary>
    private static string? OnlyText(IReadOnlyList<JsonElement> messages) =>
        messages is [{ ValueKind: JsonValueKind.Object } only] && only.TryGetProperty("role", out var role) && role.ValueEquals("user") && only.TryGetProperty("content", out var content)
            ? content.ValueKind switch
            {
                JsonValueKind.String => content.GetString(),
                JsonValueKind.Array when content.EnumerateArray().All(IsText) => string.Concat(content.EnumerateArray().Select(part => part.GetProperty("text").GetString())),
                _ => null,
            }
            : null;

    private static bool IsText(JsonElement part) =>
        part.ValueKind is JsonValueKind.Object && part.TryGetProperty("text", out var text) && text.ValueKind is JsonValueKind.String;

    private static ApiErrorException Fault(string message, string code) => new(ApiError.BadRequest(message, Field, code));
}
