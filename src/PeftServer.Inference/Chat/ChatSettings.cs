using System.Globalization;
using System.Text.Json;
using PeftServer.Core.Http;
using PeftServer.Engine.Generation;

namespace PeftServer.Inference.Chat;

/// <summary>Checks the fields of a chat request and says what they mean.</summary>
internal static class ChatSettings
{
    private const int MaxStops = 4;
    private const int MaxChoices = 128;

    /// <summary>Every fault of the request, field and remedy.</summary>
    public static IReadOnlyList<ErrorDetail> Faults(ChatRequest request, int vocabulary)
    {
        var faults = new List<ErrorDetail>();
        Range("temperature", request.Temperature, 0, 2);
        Range("top_p", request.TopP, 0, 1);
        Range("top_k", request.TopK, 0, int.MaxValue);
        Range("task_id", request.TaskId, 0, int.MaxValue);
        Range("max_tokens", request.MaxTokens, 1, int.MaxValue);
        Range("max_completion_tokens", request.MaxCompletionTokens, 1, int.MaxValue);
        Range("n", request.N, 1, MaxChoices);
        Range("top_logprobs", request.TopLogprobs, 0, 20);
        Range("frequency_penalty", request.FrequencyPenalty, -2, 2);
        Range("presence_penalty", request.PresencePenalty, -2, 2);
        if (request.Messages.Count == 0)
        {
            Fault("messages", "'messages' is empty. Send at least one message.");
        }

        if (request.MaxTokens is not null && request.MaxCompletionTokens is not null && request.MaxTokens != request.MaxCompletionTokens)
        {
            Fault("max_tokens", "'max_tokens' and 'max_completion_tokens' say different things. Send one of them.");
        }

        if (request.TopLogprobs is not null && request.Logprobs is not true)
        {
            Fault("top_logprobs", "'top_logprobs' needs 'logprobs': true.");
        }

        if (request.Stop is { } stop && (stop.Values.Count > MaxStops || stop.Values.Any(string.IsNullOrEmpty)))
        {
            Fault("stop", $"'stop' takes up to {MaxStops} strings, none of them empty.");
        }

        if (request.StreamOptions is not null && request.Stream is not true)
        {
            Fault("stream_options", "'stream_options' needs 'stream': true.");
        }

        if (request.LogitBias?.Any(bias => !int.TryParse(bias.Key, CultureInfo.InvariantCulture, out var id) || id < 0 || id >= vocabulary
            || bias.Value is < -100 or > 100) is true)
        {
            Fault("logit_bias", $"'logit_bias' maps token ids from 0 to {vocabulary - 1} to numbers from -100 to 100.");
        }

        OnlyDefault("tool_choice", request.ToolChoice, "none", "auto");
        OnlyDefault("response_format", Member(request.ResponseFormat, "type"), "text");
        OnlyDefault("functions", request.Functions);
        OnlyDefault("function_call", request.FunctionCall);
        OnlyDefault("audio", request.Audio);
        OnlyDefault("web_search_options", request.WebSearchOptions);
        if (request.Modalities is { ValueKind: JsonValueKind.Array } modalities && modalities.EnumerateArray().Any(item => item.ToString() != "text"))
        {
            Fault("modalities", "Only the modality 'text' is supported.");
        }

        return faults;

        void Fault(string field, string message) => faults.Add(new ErrorDetail(message, field, "invalid_value"));

        void Range(string field, double? value, double least, double most)
        {
            if (value is { } given && !(given >= least && given <= most))
            {
                var bounds = most == int.MaxValue ? FormattableString.Invariant($"at least {least}") : FormattableString.Invariant($"from {least} to {most}");
                Fault(field, FormattableString.Invariant($"'{field}' is {given}; it must be {bounds}."));
            }
        }

        void OnlyDefault(string field, JsonElement? value, params string[] defaults)
        {
            if (value is { ValueKind: not JsonValueKind.Null } given && !defaults.Contains(given.ToString()))
            {
                var remedy = defaults.Length == 0 ? "Leave it out." : $"Use {string.Join(" or ", defaults)}, or leave it out.";
                faults.Add(new ErrorDetail($"'{field}' is not supported by this server yet. {remedy}", field, "unsupported_parameter"));
            }
        }
    }

    /// <summary>How to sample the choice number <paramref name="choice"/>; <paramref name="room"/> is what the model has left for the answer.</summary>
    public static SamplingParameters Sampling(ChatRequest request, IReadOnlySet<int> stopTokens, int room, int choice) => new()
    {
        MaxTokens = Math.Min(request.MaxCompletionTokens ?? request.MaxTokens ?? room, room),
        Temperature = request.Temperature ?? 1,
        TopP = request.TopP ?? 1,
        TopK = request.TopK ?? 0,
        FrequencyPenalty = request.FrequencyPenalty ?? 0,
        PresencePenalty = request.PresencePenalty ?? 0,
        LogitBias = request.LogitBias?.ToDictionary(bias => int.Parse(bias.Key, CultureInfo.InvariantCulture), bias => bias.Value),
        Seed = request.Seed is { } seed ? unchecked((ulong)seed + (ulong)choice) : null,
        TopLogProbabilities = request.Logprobs is true ? request.TopLogprobs ?? 0 : null,
        StopTokens = stopTokens,
    };

    private static JsonElement? Member(JsonElement? value, string name) =>
        value is { ValueKind: JsonValueKind.Object } map && map.TryGetProperty(name, out var member) ? member : value;
}
