using System.Text.Json;
using PeftServer.Core.Http;
using PeftServer.Inference.Writing;

namespace PeftServer.Inference.Chat;

/// <summary>Checks the fields that chat requests alone have.</summary>
internal static class ChatSettings
{
    /// <summary>Every fault of the request, field and remedy.</summary>
    public static IReadOnlyList<ErrorDetail> Faults(ChatRequest request, int vocabulary)
    {
        var faults = SamplingSettings.Faults(request, vocabulary);
        faults.Range("max_tokens", request.MaxTokens, 1, int.MaxValue);
        faults.Range("max_completion_tokens", request.MaxCompletionTokens, 1, int.MaxValue);
        faults.Range("top_logprobs", request.TopLogprobs, 0, 20);
        if (request.Messages.Count == 0)
        {
            faults.Fault("messages", "'messages' is empty. Send at least one message.");
        }

        for (var i = 0; i < request.Messages.Count; i++)
        {
            ChatMessages.Check(request.Messages[i], $"messages[{i}]", faults);
        }

        ChatMessages.CheckTools(request.Tools, faults);
        if (request.ChatTemplateKwargs?.Keys.FirstOrDefault(name => name is "messages" or "tools") is { } taken)
        {
            faults.Fault($"chat_template_kwargs.{taken}", $"Send '{taken}' as a field of the request.");
        }

        if (request.ContinueFinalMessage is true)
        {
            faults.Add(new ErrorDetail(
                "'continue_final_message' is not supported by this server yet. Leave it out, or send the chat as a text to /v1/completions.", "continue_final_message", "unsupported_parameter"));
        }

        if (request.MaxTokens is not null && request.MaxCompletionTokens is not null && request.MaxTokens != request.MaxCompletionTokens)
        {
            faults.Fault("max_tokens", "'max_tokens' and 'max_completion_tokens' say different things. Send one of them.");
        }

        if (request.TopLogprobs is not null && request.Logprobs is not true)
        {
            faults.Fault("top_logprobs", "'top_logprobs' needs 'logprobs': true.");
        }

        faults.OnlyDefault("tool_choice", request.ToolChoice, "none", "auto");
        faults.OnlyDefault("response_format", Member(request.ResponseFormat, "type"), "text");
        faults.OnlyDefault("functions", request.Functions);
        faults.OnlyDefault("function_call", request.FunctionCall);
        faults.OnlyDefault("audio", request.Audio);
        faults.OnlyDefault("web_search_options", request.WebSearchOptions);
        if (request.Modalities is { ValueKind: JsonValueKind.Array } modalities && modalities.EnumerateArray().Any(item => item.ToString() != "text"))
        {
            faults.Fault("modalities", "Only the modality 'text' is supported.");
        }

        return faults;
    }

    private static JsonElement? Member(JsonElement? value, string name) =>
        value is { ValueKind: JsonValueKind.Object } map && map.TryGetProperty(name, out var member) ? member : value;
}
