using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Tests;

/// <summary>A folder with a model of a few thousand random weights and a tokenizer; it is deleted with this object.</summary>
internal sealed class SmallModel : IDisposable
{
    private SmallModel(string config, string tokenizer)
    {
        File.WriteAllText(Path.Combine(Folder, "config.json"), config);
        foreach (var file in Directory.GetFiles(tokenizer).Where(file => Path.GetFileName(file) is "tokenizer.json" or "tokenizer_config.json"))
        {
            File.Copy(file, Path.Combine(Folder, Path.GetFileName(file)));
        }

        var plan = PretrainedModel.Plan(Folder);
        using var scope = NewDisposeScope();
        using var generator = new Generator(7);
        SafetensorsWriter.Write(Path.Combine(Folder, "model.safetensors"), plan.Weights().ToDictionary(
            weight => weight.Path,
            weight => weight.Shape.Count == 1 && weight.Path.EndsWith(".weight", StringComparison.Ordinal) ? ones([.. weight.Shape]) : randn([.. weight.Shape], generator: generator).Times(0.1)));
    }

    public string Folder { get; } = Directory.CreateTempSubdirectory("peftserver-model-").FullName;

    /// <summary>BERT's body with the words of its English tokenizer.</summary>
    public static SmallModel Bert() => new(
        """
        {
          "architectures": ["BertModel"], "model_type": "bert", "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "num_hidden_layers": 2,
          "vocab_size": 30522, "max_position_embeddings": 128, "type_vocab_size": 2, "pad_token_id": 0
        }
        """,
        Path.Combine(Samples.Goldens, "tokenizers", "bert_uncased"));

    /// <summary>T5 with the tokens of the sample model.</summary>
    public static SmallModel T5() => new(
        """
        {
          "architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 2,
          "feed_forward_proj": "relu", "vocab_size": 4096, "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 2, "tie_word_embeddings": true,
          "is_encoder_decoder": true, "relative_attention_num_buckets": 8, "layer_norm_epsilon": 1e-6
        }
        """,
        Samples.TinyLlama);

    public void Dispose() => Directory.Delete(Folder, recursive: true);
}
