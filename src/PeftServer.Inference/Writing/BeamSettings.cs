using System.Text.Json;
using PeftServer.Core.Http;
using PeftServer.Engine.Generation;

namespace PeftServer.Inference.Writing;

/// <summary>Checks the fields of a search of beams, and says what they mean.</summary>
internal static class BeamSettings
{
    private const string Never = "never";

    /// <summary>Adds the faults of these fields, and of those that mean nothing to a search.</summary>
    public static void Check(SampledRequest request, List<ErrorDetail> faults)
    {
        faults.Range("length_penalty", request.LengthPenalty, -100, 100);
        if (request.EarlyStopping is { ValueKind: not (JsonValueKind.True or JsonValueKind.False or JsonValueKind.Null) } stopping
            && !(stopping.ValueKind is JsonValueKind.String && stopping.ValueEquals(Never)))
        {
            faults.Fault("early_stopping", "'early_stopping' must be true, false or \"never\".");
        }

        if (request.UseBeamSearch is not true)
        {
            foreach (var field in ((string Name, bool IsGiven)[])[("length_penalty", request.LengthPenalty is not null), ("early_stopping", request.EarlyStopping is not null)])
            {
                if (field.IsGiven)
                {
                    faults.Fault(field.Name, $"'{field.Name}' needs 'use_beam_search': true.");
                }
            }

            return;
        }

        foreach (var (name, isUsed) in Drawing(request))
        {
            if (isUsed)
            {
                faults.Fault(name, $"'{name}' has no part in 'use_beam_search', which draws nothing. Leave it out.");
            }
        }
    }

    public static BeamParameters Of(SampledRequest request) => new()
    {
        Width = request.BeamWidth,
        LengthPenalty = request.LengthPenalty ?? 1,
        Stop = request.EarlyStopping?.ValueKind switch
        {
            JsonValueKind.True => BeamStop.Full,
            JsonValueKind.String => BeamStop.NoneCanBeBetter,
            _ => BeamStop.NoneIsBetter,
        },
    };

    private static (string Name, bool IsUsed)[] Drawing(SampledRequest request) =>
    [
        ("temperature", request.Temperature is not (null or 0 or 1)),
        ("top_p", request.TopP is not (null or 1)),
        ("top_k", request.TopK is > 0),
        ("min_p", request.MinP is > 0),
        ("min_tokens", request.MinTokens is > 0),
        ("repetition_penalty", request.RepetitionPenalty is not (null or 1)),
        ("frequency_penalty", request.FrequencyPenalty is not (null or 0)),
        ("presence_penalty", request.PresencePenalty is not (null or 0)),
        ("logit_bias", request.LogitBias is { Count: > 0 }),
        ("logprobs", request.Rivals is not null),
        ("prompt_logprobs", request.PromptRivals is not null),
        ("max_tokens", request.MostTokens is 0),
    ];
}
