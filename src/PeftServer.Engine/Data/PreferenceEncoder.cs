using PeftServer.Engine.Tokenizers;
using PeftServer.Engine.Tokenizers.ChatTemplates;

namespace PeftServer.Engine.Data;

/// <summary>Prompts with answers to token ids, each answer in the place of a completion.</summary>
internal sealed class PreferenceEncoder(Tokenizer tokenizer, TrainingDataOptions options)
{
    private readonly RowEncoder _rows = new(tokenizer, options with { AssistantOnlyLoss = null, CompletionOnlyLoss = true });

    public PreferenceRow Encode(PairRow row, long line)
    {
        var (chosen, rejected) = (_rows.Encode(row.Chosen)[0], _rows.Encode(row.Rejected)[0]);
        var prompt = Math.Min(PromptLength(chosen), PromptLength(rejected));
        return new PreferenceRow(chosen.Ids[..prompt], chosen.Ids[prompt..], rejected.Ids[prompt..], line, row.Margin);
    }

    public JudgedRow Encode(LabelledRow row, long line)
    {
        var answer = _rows.Encode(row.Answer)[0];
        var prompt = PromptLength(answer);
        return new JudgedRow(answer.Ids[..prompt], answer.Ids[prompt..], row.Label, line);
    }

    private static int PromptLength(TokenizedChat answer)
    {
        var first = Array.IndexOf(answer.Trained, true);
        return first < 0 ? answer.Ids.Length : first;
    }
}
