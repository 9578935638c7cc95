using System.Globalization;
using System.Text.Json;
using PeftServer.Core.Http;
using PeftServer.Engine.Generation;

namespace PeftServer.Inference.Writing;

/// <summary>Checks the fields that say how text is drawn, and says what they mean.</summary>
internal static class SamplingSettings
{
    private const int MaxStops = 32;
    /// <summary>Answers to one prompt, and beams of a search.</summary>
    public const int MaxChoices = 128;


    /// <summary>Every fault of these fields, with the remedy.</summary>
    public static List<ErrorDetail> Faults(SampledRequest request, int vocabulary)
    {
        var faults = new List<ErrorDetail>();
        faults.Range("temperature", request.Temperature, 0, 2);
        faults.Range("top_p", request.TopP, 0, 1);
        faults.Range("top_k", request.TopK, -1, int.MaxValue);
        faults.Range("task_id", request.TaskId, 0, int.MaxValue);
        faults.Range("min_p", request.MinP, 0, 1);
        faults.Range("repetition_penalty", request.RepetitionPenalty, 0.01, 100);
        faults.Range("min_tokens", request.MinTokens, 0, request.MostTokens ?? int.MaxValue);
        faults.Range("n", request.N, 1, MaxChoices);
        faults.Range("frequency_penalty", request.FrequencyPenalty, -2, 2);
        faults.Range("presence_penalty", request.PresencePenalty, -2, 2);
        if (request.Stop is { } stop && (stop.Values.Count > MaxStops || stop.Values.Any(string.IsNullOrEmpty)))
        {
            faults.Fault("stop", $"'stop' takes up to {MaxStops} strings, none of them empty.");
        }

        BeamSettings.Check(request, faults);
        if (request.StopTokenIds?.Any(id => id < 0 || id >= vocabulary) is true)
        {
            faults.Fault("stop_token_ids", $"'stop_token_ids' takes token ids from 0 to {vocabulary - 1}.");
        }

        if (request.StreamOptions is not null && request.Stream is not true)
        {
            faults.Fault("stream_options", "'stream_options' needs 'stream': true.");
        }

        if (request.LogitBias?.Any(bias => !int.TryParse(bias.Key, CultureInfo.InvariantCulture, out var id) || id < 0 || id >= vocabulary
            || bias.Value is < -100 or > 100) is true)
        {
            faults.Fault("logit_bias", $"'logit_bias' maps token ids from 0 to {vocabulary - 1} to numbers from -100 to 100.");
        }

        return faults;
    }

    extension(List<ErrorDetail> faults)
    {
        public void Fault(string field, string message) => faults.Add(new ErrorDetail(message, field, "invalid_value"));

        public void Range(string field, double? value, double least, double most)
        {
            if (value is { } given && !(given >= least && given <= most))
            {
                var bounds = most == int.MaxValue ? FormattableString.Invariant($"at least {least}") : FormattableString.Invariant($"from {least} to {most}");
                faults.Fault(field, FormattableString.Invariant($"'{field}' is {given}; it must be {bounds}."));
            }
        }

        public void OnlyDefault(string field, JsonElement? value, params string[] defaults)
        {
            if (value is { ValueKind: not JsonValueKind.Null } given && !defaults.Contains(given.ToString()))
            {
                var remedy = defaults.Length == 0 ? "Leave it out." : $"Use {string.Join(" or ", defaults)}, or leave it out.";
                faults.Add(new ErrorDetail($"'{field}' is not supported by this server yet. {remedy}", field, "unsupported_parameter"));
            }
        }
    }

    /// <summary>How to sample the choice number <paramref name="choice"/>; <paramref name="room"/> is what the model has left for the answer.</summary>
    public static SamplingParameters Sampling(SampledRequest request, Speech speech, int room, int choice) => new()
    {
        MaxTokens = Math.Min(request.MostTokens ?? room, room),
        Temperature = request.Temperature ?? 1,
        TopP = request.TopP ?? 1,
        TopK = Math.Max(0, request.TopK ?? 0),
        MinP = request.MinP ?? 0,
        RepetitionPenalty = request.RepetitionPenalty ?? 1,
        MinTokens = request.MinTokens ?? 0,
        FrequencyPenalty = request.FrequencyPenalty ?? 0,
        PresencePenalty = request.PresencePenalty ?? 0,
        LogitBias = request.LogitBias?.ToDictionary(bias => int.Parse(bias.Key, CultureInfo.InvariantCulture), bias => bias.Value),
        Seed = request.Seed is { } seed ? unchecked((ulong)seed + (ulong)choice) : null,
        TopLogProbabilities = request.Rivals,
        StopTokens = StopTokens(request, speech),
        Forced = speech.Forced,
    };

    private static IReadOnlySet<int> StopTokens(SampledRequest request, Speech speech) =>
        request.IgnoreEos is not true && request.StopTokenIds is not { Count: > 0 }
            ? speech.StopTokens
            : speech.StopTokens.Where(_ => request.IgnoreEos is not true).Concat(request.StopTokenIds ?? []).ToHashSet();
}
