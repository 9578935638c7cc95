using System.Text.Json.Serialization;

namespace PeftServer.Engine.Adapters.PromptTuning;

/// <summary>How the rows of a prompt start, by PEFT's names.</summary>
public enum PromptTuningInit
{
    /// <summary>Drawn from a normal distribution.</summary>
    [JsonStringEnumMemberName("RANDOM")]
    Random,

    /// <summary>Embeddings of the tokens of a text, repeated or cut to the length of the prompt.</summary>
    [JsonStringEnumMemberName("TEXT")]
    Text,

    /// <summary>Embeddings of tokens drawn from the vocabulary.</summary>
    [JsonStringEnumMemberName("SAMPLE_VOCAB")]
    SampleVocab,
}
