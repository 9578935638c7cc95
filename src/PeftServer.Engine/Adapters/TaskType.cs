using System.Text.Json.Serialization;

namespace PeftServer.Engine.Adapters;

/// <summary>PEFT's task types, by the names that <c>adapter_config.json</c> holds.</summary>
public enum TaskType
{
    [JsonStringEnumMemberName("CAUSAL_LM")]
    CausalLm,

    [JsonStringEnumMemberName("SEQ_2_SEQ_LM")]
    Seq2SeqLm,

    [JsonStringEnumMemberName("SEQ_CLS")]
    SequenceClassification,

    [JsonStringEnumMemberName("TOKEN_CLS")]
    TokenClassification,

    [JsonStringEnumMemberName("QUESTION_ANS")]
    QuestionAnswering,

    [JsonStringEnumMemberName("FEATURE_EXTRACTION")]
    FeatureExtraction,
}
